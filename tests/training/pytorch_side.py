"""The PyTorch half of test_pytorch.py, run as a script by a Python with torch and transformers 5.

    python tests/training/pytorch_side.py FOLDER

Each model folder FOLDER/ours/NAME is read: what PyTorch finds goes to NAME.json and its logits to NAME.npy
beside it. Each configuration FOLDER/theirs/NAME.config.json becomes a model with random weights, saved in
FOLDER/theirs/NAME, and its logits in NAME.npy. FOLDER/inputs/NAME.npz holds `input_ids`, `attention_mask` and
`texts`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer


def compute_logits(model, inputs):
    model.eval()
    tensors = {name: torch.tensor(inputs[name]).long() for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        return model(**tensors).logits.numpy()


def read_ours(folder, inputs):
    model, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = {
        "class": type(model).__name__,
        "dtype": str(model.dtype),
        "problems": {name: sorted(map(str, keys)) for name, keys in info.items() if keys},
        "texts_as_ids": tokenizer([str(text) for text in inputs["texts"]])["input_ids"],
        "mask_token": tokenizer.mask_token,
    }
    folder.with_suffix(".json").write_text(json.dumps(found))
    np.save(folder.with_suffix(".npy"), compute_logits(model, inputs))


def write_theirs(config_file, folder, inputs):
    fields = json.loads(config_file.read_text())
    model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(**fields))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    np.save(folder.with_suffix(".npy"), compute_logits(model, inputs))


if __name__ == "__main__":
    root = Path(sys.argv[1])
    for inputs_file in sorted((root / "inputs").iterdir()):
        name = inputs_file.stem
        given = np.load(inputs_file)
        read_ours(root / "ours" / name, given)
        if (root / "theirs" / f"{name}.config.json").exists():
            write_theirs(root / "theirs" / f"{name}.config.json", root / "theirs" / name, given)
