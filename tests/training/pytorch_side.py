"""The PyTorch half of test_pytorch.py, run as a script by a Python with torch and transformers 5.

    python tests/training/pytorch_side.py FOLDER

Each model folder FOLDER/ours/NAME is read: what PyTorch finds goes to NAME.json and its logits to NAME.npy
beside it. Of its configuration a model with random weights is made and saved in FOLDER/theirs/NAME, and its
logits in NAME.npy. FOLDER/inputs/NAME.npz holds `input_ids`, `attention_mask` and `texts`.
"""

import json
import sys
import traceback
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
    Path(f"{folder}.json").write_text(json.dumps(found))
    np.save(f"{folder}.npy", compute_logits(model, inputs))


def write_theirs(config_folder, folder, inputs):
    model = AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(config_folder))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    np.save(f"{folder}.npy", compute_logits(model, inputs))


if __name__ == "__main__":
    root = Path(sys.argv[1])
    for inputs_file in sorted((root / "inputs").iterdir()):
        name = inputs_file.stem
        given = np.load(inputs_file)
        try:
            read_ours(root / "ours" / name, given)
            write_theirs(root / "ours" / name, root / "theirs" / name, given)
        except Exception:  # noqa: BLE001 the test of this name raises it
            (root / "theirs" / f"{name}.failed").write_text(traceback.format_exc())
