"""The command `tfmlm completion`: a shell's completion, with the keys of the configuration for overrides."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator

_SHELLS = ("bash", "zsh", "fish")

_NO_SPACE = """
# A key wants its value right behind it.
_tfmlm_complete() {
  _shtab_tfmlm "$@"
  if [[ "${COMPREPLY[0]-}" == *= ]]; then compopt -o nospace; fi
}
complete -o bashdefault -F _tfmlm_complete tfmlm"""


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    make_parser: Callable[[], argparse.ArgumentParser],
) -> None:
    """Adds `completion` to the other commands; `make_parser` makes the parser of them all."""
    completion = commands.add_parser(
        "completion",
        help="print the completion of a shell",
        epilog='For bash: eval "$(tfmlm completion bash)". For zsh, after compinit: '
        'eval "$(tfmlm completion zsh)". For fish: tfmlm completion fish | source.',
    )
    completion.add_argument("shell", choices=_SHELLS)
    completion.set_defaults(command=_completion, make_parser=make_parser)


def _completion(options: argparse.Namespace) -> int:
    print(write_completion(options.make_parser(), options.shell))
    return 0


def write_completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script that a shell reads to complete `tfmlm`.

    Args:
        parser: of all commands; what completes its arguments is added to them.
        shell: `bash`, `zsh` or `fish`.
    """
    import shtab

    for action in _list_actions(parser):
        completer = _choose_completer(action)
        if completer:
            setattr(action, "complete", completer)  # noqa: B010 (shtab reads it; argparse does not know it)
    return shtab.complete(parser, shell) + (_NO_SPACE if shell == "bash" else "")


def _list_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # noqa: SLF001 (argparse has no other way to them)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for command in action.choices.values():
                yield from _list_actions(command)
        else:
            yield action


def _choose_completer(action: argparse.Action) -> dict[str, object] | None:
    import shtab

    if action.dest == "overrides":
        return _complete_keys()
    if action.metavar == "FILE" or action.dest in ("config", "model", "text"):
        return dict(shtab.FILE)
    if action.metavar == "FOLDER" or action.dest in ("folder", "runs"):
        return dict(shtab.DIRECTORY)
    return None


def _complete_keys() -> dict[str, object]:
    from tfmlm.config.schema import list_keys

    keys = [f"{key}=" for key in list_keys()]
    words = " ".join(keys)
    return {
        "bash": "_tfmlm_keys",
        "zsh": f"compadd -S '' -- {words}",
        "fish": f"(printf '%s\\n' {shlex.join(keys)})",
        "preamble": {"bash": f'_tfmlm_keys() {{ compgen -W "{words}" -- "$1"; }}'},
    }
