"""Mistakes in the tokenizer and in the model."""

from pathlib import Path

from transformers import PreTrainedTokenizerFast, RobertaTokenizerFast

from tests.commands.bad_input.arrange import change_json, cut, remove, write
from tests.commands.bad_input.case import TRAIN, Case


def remove_mask_token(folder: Path) -> None:
    tokenizer = RobertaTokenizerFast.from_pretrained(folder / "model")
    bare = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, pad_token=tokenizer.pad_token
    )
    bare.save_pretrained(folder / "bare")


def pickle_weights(folder: Path) -> None:
    (folder / "model/model.safetensors").rename(folder / "model/pytorch_model.bin")


MODEL = f"{TRAIN} tokenizer.name_or_path={{folder}}/tokens"

TOKENIZER = [
    Case(
        "no mask token",
        f"{TRAIN} tokenizer.name_or_path={{folder}}/bare",
        "has no mask_token",
        remove_mask_token,
    ),
    Case("no tokenizer", f"{TRAIN} tokenizer.name_or_path={{folder}}", "holds no tokenizer"),
    Case("a file cut short", TRAIN, "holds no tokenizer", cut("model/vocab.json", 0.5)),
    Case("a tokenizer.json that is none", TRAIN, "holds no tokenizer", write("model/tokenizer.json", "[]")),
    Case(
        "a vocabulary of another model",
        f"{TRAIN} tokenizer.name_or_path={{folder}}/tokens model.name_or_path=null "
        "model.config={{model_type:\u00a0bert,vocab_size:\u00a050}}",
        "tokens and the model only 50; use the model's own tokenizer",
    ),
    Case(
        "code of its own",
        TRAIN,
        "which is never run",
        write(
            "model/tokenizer_config.json",
            '{"auto_map": {"AutoTokenizer": ["a.B", null]}, "tokenizer_class": "B"}',
        ),
    ),
    Case(
        "a vocabulary smaller than what it begins with",
        f"{TRAIN} tokenizer.algorithm=byte_bpe tokenizer.train_vocab_size=200",
        "it must be at least 261 for byte_bpe, which begins with 5 special tokens and 256 bytes",
    ),
    Case(
        "a RoBERTa whose padding is not at 1",
        TRAIN,
        "takes token 1 for padding, and pad_token_id of its config.json is 0",
        change_json("model/config.json", pad_token_id=0),
    ),
    Case(
        "an algorithm that there is not",
        f"{TRAIN} tokenizer.algorithm=bpe",
        "it must be one of wordpiece, byte_bpe",
    ),
]

MODELS = [
    Case("no folder", f"{TRAIN} model.name_or_path={{folder}}/nowhere", "is not a folder"),
    Case("no package", f"{TRAIN} model.name_or_path=package:a.b/c", "is not installed"),
    Case("no configuration", MODEL, "has no config.json", remove("model/config.json")),
    Case("a configuration that is no JSON", MODEL, "cannot be loaded", write("model/config.json", "{")),
    Case("a configuration that is a list", MODEL, "cannot be loaded", write("model/config.json", "[1]")),
    Case(
        "a model type of another kind",
        MODEL,
        "has no TensorFlow masked-LM head",
        change_json("model/config.json", model_type="gpt2"),
    ),
    Case("a size that is a word", MODEL, "cannot be", change_json("model/config.json", hidden_size="a")),
    Case(
        "heads that do not divide",
        MODEL,
        "cannot be",
        change_json("model/config.json", num_attention_heads=5),
    ),
    Case(
        "code of its own",
        MODEL,
        "which is never run",
        change_json("model/config.json", model_type="mine", auto_map={"AutoConfig": "a.B"}),
    ),
    Case("no weights", MODEL, "has no weights", remove("model/model.safetensors")),
    Case("weights cut short", MODEL, "cannot be loaded", cut("model/model.safetensors", 0.5)),
    Case("weights that are none", MODEL, "cannot be loaded", write("model/model.safetensors", "nothing")),
    Case(
        "weights of another size",
        MODEL,
        "cannot be loaded",
        change_json("model/config.json", hidden_size=64),
    ),
    Case(
        "pickled weights",
        MODEL,
        "opening a pickle can run code",
        pickle_weights,
    ),
    Case(
        "a block too long",
        f"{TRAIN} data.block_size=71",
        "data.block_size 71 is over the model's maximum of 70",
    ),
    Case("a field that there is not", f"{TRAIN} model.config.hidden_siz=8", "did you mean 'hidden_size'?"),
    Case(
        "a new model of a word",
        f"{MODEL} model.name_or_path=null model.config={{{{model_type:\u00a0bert,hidden_size:\u00a0a}}}}",
        "model.config makes no bert model",
    ),
    Case(
        "a new model of so many layers as a word",
        f"{MODEL} model.name_or_path=null "
        "model.config={{model_type:\u00a0bert,num_hidden_layers:\u00a0a}}",
        "model.config makes no bert model",
    ),
]
