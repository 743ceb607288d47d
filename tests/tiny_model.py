"""A tiny model of any architecture, with random weights."""

from transformers import AutoConfig, TFAutoModelForMaskedLM, TFPreTrainedModel

from tests.tiny import PAD_IS_ONE


def make_tiny(model_type: str, **fields: object) -> TFPreTrainedModel:
    defaults = {"vocab_size": 60, "pad_token_id": int(model_type in PAD_IS_ONE)}
    config = AutoConfig.for_model(model_type, **defaults | fields)
    model = TFAutoModelForMaskedLM.from_config(config)
    model.build_in_name_scope()
    return model
