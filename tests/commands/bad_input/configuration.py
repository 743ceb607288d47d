"""Mistakes in the configuration."""

from tests.commands.bad_input.arrange import write
from tests.commands.bad_input.case import CONFIG, CONFIG_PATH, TRAIN, Case

CONFIGURATION = [
    Case("a key that is misspelt", f"{TRAIN} optimizer.learning_rat=1", "optimizer.learning_rat: "),
    Case("a section that is misspelt", f"{TRAIN} optimiser.learning_rate=1", "Did you mean: 'optimizer'"),
    Case(
        "a word for a number",
        f"{TRAIN} data.block_size=long",
        "data.block_size is 'long'; it must be of type int",
    ),
    Case(
        "a value for a list",
        f"{TRAIN} data.train_files=a.txt",
        "data.train_files is 'a.txt'; it must be of type list",
    ),
    Case(
        "a value for a section",
        f"config {CONFIG_PATH}",
        "config section data is 3",
        write("config.yaml", "data: 3"),
    ),
    Case("a list for keys", f"{TRAIN} model.config=[1]", "model.config is [1]; it must be of type dict"),
    Case("an item of a list", f"{TRAIN} data.train_files[0]=a", "overrides do not fit"),
    Case("none of the choices", f"{TRAIN} train.precision=fp8", "it must be one of float32, bfloat16"),
    Case("a rate over 1", f"{TRAIN} masking.rate=1.5", "masking.rate is 1.5; it must be between 0 and 1"),
    Case("fractions over 1 together", f"{TRAIN} masking.mask_fraction=0.95", "add up to more than 1"),
    Case(
        "an endless number",
        f"{TRAIN} optimizer.learning_rate=.inf",
        "learning_rate is inf; it must be more than 0",
    ),
    Case(
        "a number too large",
        f"{TRAIN} run.seed=99999999999999999999",
        "it must be 0 or more and less than 2**63",
    ),
    Case(
        "an override without =",
        f"{TRAIN} block_size",
        "'block_size' is not of the form section.key=value",
    ),
    Case("an override that is no YAML", f"{TRAIN} run.name=[", "override cannot be read"),
    Case("an override of broken bytes", f"{TRAIN} run.name=\ud800", "override cannot be read"),
    Case("a push to nowhere", f"{TRAIN} hub.push=true", "hub.repo_id is empty"),
    Case("a file that is no YAML", TRAIN, "not valid YAML", write("config.yaml", "run: {name: [1")),
    Case(
        "a value that is not its type",
        TRAIN,
        "has a value that cannot be read",
        write("config.yaml", "run: {seed: 0x_}"),
    ),
    Case(
        "an object of Python in YAML",
        TRAIN,
        "not valid YAML",
        write("config.yaml", "run: !!python/object/apply:os.getpid []"),
    ),
    Case("aliases that grow without end", TRAIN, "not valid YAML", write("config.yaml", "a: &a [x, *a]")),
    Case(
        "a reference to another key",
        TRAIN,
        "config key run.name: '${data.source}' is an interpolation, which is never resolved",
        write("config.yaml", "run: {name: '${data.source}'}"),
    ),
    Case(
        "half a letter in a sample text",
        TRAIN,
        "not valid YAML",
        write("config.yaml", CONFIG.replace("name: bad,", 'name: bad, sample_texts: ["\\ud800"],')),
    ),
    Case(
        "a NUL in a name",
        TRAIN,
        "run.name is 'a\\x00b'; it must be without",
        write("config.yaml", 'run: {name: "a\\0b"}'),
    ),
    Case(
        "a list as the file",
        TRAIN,
        "is a list; it must hold sections",
        write("config.yaml", "- 1\n- 2\n"),
    ),
    Case("a file that is no text", TRAIN, "config.yaml'", write("config.yaml", b"run: \xff\xfe")),
    Case("no file", "config {folder}/none.yaml", "does not exist; the shipped ones are in configs/"),
    Case("a folder as the file", "config {folder}", "cannot be read"),
]
