"""Repositories of a test's Hub, and how its interface describes their files."""

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

LFS_SUFFIXES = (".safetensors", ".h5", ".bin", ".parquet")


@dataclass
class Repository:
    """Files under version control.

    Attributes: `commits` maps a commit to its files, `branches` a branch to its commits, oldest first."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, list[str]] = field(default_factory=dict)

    def apply(self, branch: str, operations: list[dict[str, Any]], objects: dict[str, bytes]) -> str:
        """Commits operations as the interface writes them."""
        files = dict(self.commits[self.branches[branch][-1]])
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = objects[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        return self.commit(branch, files)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        history = self.branches.setdefault(branch, [])
        sha = hashlib.sha1(f"{branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = files
        history.append(sha)
        return sha

    def find(self, revision: str) -> str | None:
        return (
            self.branches[revision][-1]
            if revision in self.branches
            else (revision if revision in self.commits else None)
        )

    def files(self, branch: str = "main") -> dict[str, bytes]:
        """The files of a branch, without the Hub's own `.gitattributes`."""
        files = self.commits[self.branches[branch][-1]]
        return {path: content for path, content in files.items() if path != ".gitattributes"}


def git_hash(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def list_folder(files: dict[str, bytes], folder: str, recursive: bool) -> list[dict[str, Any]]:
    start = f"{folder}/" if folder else ""
    inner = {path.removeprefix(start): content for path, content in files.items() if path.startswith(start)}
    if recursive:
        return [describe_file(start + path, content) for path, content in inner.items()]
    folders = sorted({path.partition("/")[0] for path in inner if "/" in path})
    direct = [describe_file(start + path, content) for path, content in inner.items() if "/" not in path]
    return direct + [describe_folder(start + path) for path in folders]


def describe_mode(files: dict[str, bytes], path: str) -> dict[str, Any]:
    is_large = path.endswith(LFS_SUFFIXES)
    content = files.get(path)
    oid = None
    if content is not None:
        oid = hashlib.sha256(content).hexdigest() if is_large else git_hash(content)
    mode = "lfs" if is_large else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}


def describe_file(path: str, content: bytes) -> dict[str, Any]:
    info: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
    if path.endswith(LFS_SUFFIXES):
        oid = hashlib.sha256(content).hexdigest()
        info["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
    return info


def describe_folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": git_hash(path.encode())}


def list_paths(files: dict[str, bytes], paths: list[str]) -> list[dict[str, Any]]:
    found = [describe_file(path, files[path]) for path in paths if path in files]
    folders = [path for path in paths if any(file.startswith(f"{path}/") for file in files)]
    return found + [describe_folder(path) for path in folders]
