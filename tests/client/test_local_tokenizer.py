"""The tokenizer on the client's side equals that of transformers."""

import copy
import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.tiny import SENTENCES
from tfmlm.client.local_tokenizer import load_local_tokenizer
from tfmlm.errors import UserError
from tfmlm.results import decode_filled


@pytest.mark.parametrize("fixture", ["word_tokenizer", "byte_tokenizer"])
def test_ids_and_words_equal(fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    theirs: PreTrainedTokenizerFast = copy.deepcopy(request.getfixturevalue(fixture))
    theirs.model_max_length = 512
    theirs(SENTENCES[:2], padding=True, truncation=True, max_length=8)  # leaves its mark in the file
    theirs.save_pretrained(tmp_path)
    ours = load_local_tokenizer(tmp_path)
    texts = [text.replace(" the", f" the {theirs.mask_token}") for text in SENTENCES[::20]]
    texts += [f"Größe, {theirs.mask_token}{theirs.mask_token}?", "x" * 200]
    rows = ours.encode(texts)
    assert rows == theirs(texts)["input_ids"]
    for ids in rows:
        for position, token_id in ((1, 7), (len(ids) - 2, 42)):
            filled = [*ids[:position], token_id, *ids[position + 1 :]]
            for keep_special in (True, False):
                expected = theirs.decode(filled, skip_special_tokens=not keep_special)
                num_masks = 2 if keep_special else 1
                ours_filled = decode_filled(
                    ours.tokenizer.decode, ids, position, token_id, num_masks=num_masks
                )
                assert ours_filled == expected


def test_what_is_wrong_is_told(tmp_path: Path, word_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        load_local_tokenizer(tmp_path)
    word_tokenizer.save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"model_max_length": 6}))
    with pytest.raises(UserError, match="has 8 tokens and the model takes 6; shorten it"):
        load_local_tokenizer(tmp_path).encode(["[MASK] " * 6])
    config.write_text("{")
    with pytest.raises(UserError, match=r"tokenizer_config\.json' cannot be read"):
        load_local_tokenizer(tmp_path)
    config.unlink()
    assert len(load_local_tokenizer(tmp_path).encode(["[MASK] " * 600])[0]) == 602
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json' cannot be read"):
        load_local_tokenizer(tmp_path)
