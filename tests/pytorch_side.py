"""The PyTorch half of test_pytorch.py, run as a script by a Python with torch and transformers 5.

    python tests/pytorch_side.py FOLDER

FOLDER/inputs.npz holds `input_ids`, `attention_mask` and `texts`. Each folder in FOLDER/ours is read: what
PyTorch finds goes to FOLDER/ours/NAME.json and its logits to FOLDER/ours/NAME.npy. Each configuration
FOLDER/theirs/NAME.config.json becomes a model with random weights: FOLDER/theirs/NAME and NAME.npy.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

INPUTS = ("input_ids", "attention_mask")


def compute_logits(model, inputs):
    model.eval()
    with torch.no_grad():
        return model(**{name: torch.tensor(inputs[name]) for name in INPUTS}).logits.numpy()


def read_ours(folder, inputs):
    model, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = {
        "class": type(model).__name__,
        "dtype": str(model.dtype),
        "loading_info": {name: [str(key) for key in keys or []] for name, keys in info.items()},
        "input_ids": tokenizer([str(text) for text in inputs["texts"]])["input_ids"],
        "mask_token": tokenizer.mask_token,
    }
    folder.with_suffix(".json").write_text(json.dumps(found))
    np.save(folder.with_suffix(".npy"), compute_logits(model, inputs))


def write_theirs(config_file, inputs):
    folder = config_file.with_name(config_file.name.removesuffix(".config.json"))
    fields = json.loads(config_file.read_text())
    model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    np.save(folder.with_suffix(".npy"), compute_logits(model, inputs))


if __name__ == "__main__":
    root = Path(sys.argv[1])
    given = np.load(root / "inputs.npz")
    for path in sorted(path for path in (root / "ours").iterdir() if path.is_dir()):
        read_ours(path, given)
    for path in sorted((root / "theirs").glob("*.config.json")):
        write_theirs(path, given)
