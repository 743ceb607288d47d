"""The Hugging Face guide to masked language modelling: python examples/recipe.py [section.key=value …]."""

import sys

import tfmlm

GUIDE = {
    "run": {"name": "recipe"},
    "data": {
        "source": "dany0407/eli5_category",
        "split": "train[:5000]",
        "text_column": "answers.text",
        "validation_fraction": 0.2,
    },
    "model": {"name_or_path": "distilbert/distilroberta-base"},
    "optimizer": {"learning_rate": 2e-5, "weight_decay": 0.01, "schedule": "constant", "max_grad_norm": 0.0},
    "train": {"epochs": 3},
}

result = tfmlm.train(GUIDE, overrides=sys.argv[1:])
print(f"perplexity {result.initial_perplexity:.2f} before, {result.perplexity:.2f} after training")

for candidate in tfmlm.fill(result.model_dir, "The Milky Way is a <mask> galaxy.", top_k=3)[0]:
    print(f"{candidate['score']:.1%} {candidate['sequence']}")
