"""The page that `tfmlm report` writes: runs, curves, and the HTML around them."""
