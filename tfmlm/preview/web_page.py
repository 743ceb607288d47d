"""The page on which a person fills masks, and what it must know of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from tfmlm.preview.servable import Servable
from tfmlm.preview.versions import Versions

_PAGE_DIR = Path(__file__).parent / "page"


def make_page_routes(versions: Versions, name: str) -> list[BaseRoute]:
    """Routes of the page: `/`, what it loads below `/page`, and `/page/model.json`.

    Args:
        versions: what is served.
        name: name of the model.
    """

    async def show_page(_request: Request) -> Response:
        return FileResponse(_PAGE_DIR / "index.html")

    async def describe_model(_request: Request) -> Response:
        described = [_describe_version(servable) for servable in versions.list_servables()]
        return JSONResponse({"name": name, "versions": described})

    return [
        Route("/", show_page),
        Route("/page/model.json", describe_model),
        Mount("/page", StaticFiles(directory=_PAGE_DIR)),
    ]


def _describe_version(servable: Servable) -> dict[str, Any]:
    """What a version takes; the number is a string, since JavaScript's numbers end at 2^53."""
    mask_token = servable.description.get("mask_token")
    return {
        "version": str(servable.number),
        "mask_token": mask_token,
        "max_length": servable.max_length,
        "top_k": servable.description.get("top_k"),
        "text_signature": "text" in servable.signatures and mask_token is not None,
    }
