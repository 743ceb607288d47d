"""The Hugging Face guide to masked language modelling: python examples/recipe.py [section.key=value …]."""

import sys
from pathlib import Path

from tfmlm.config import Config, DataConfig, ModelConfig, OptimizerConfig, RunConfig, TrainConfig
from tfmlm.config.load import dump_config, load_config
from tfmlm.inference.fill import load_predictor
from tfmlm.library_logging import quieten_libraries, show_progress_lines
from tfmlm.run import run

GUIDE = Config(
    run=RunConfig(name="recipe"),
    data=DataConfig(
        source="dany0407/eli5_category",
        split="train[:5000]",
        text_column="answers.text",
        validation_fraction=0.2,
    ),
    model=ModelConfig(name_or_path="distilbert/distilroberta-base"),
    optimizer=OptimizerConfig(learning_rate=2e-5, weight_decay=0.01, schedule="constant", max_grad_norm=0.0),
    train=TrainConfig(epochs=3),
)


def main(overrides: list[str]) -> None:
    quieten_libraries()
    show_progress_lines()
    Path("recipe.yaml").write_text(dump_config(GUIDE))
    result = run(load_config("recipe.yaml", overrides)).result
    print(f"perplexity {result.initial_perplexity:.2f} before, {result.perplexity:.2f} after training")
    ((candidates,),) = load_predictor(result.model_dir, top_k=3)(["The Milky Way is a <mask> galaxy."])
    for candidate in candidates:
        print(f"{candidate['score']:.1%} {candidate['sequence']}")


if __name__ == "__main__":
    main(sys.argv[1:])
