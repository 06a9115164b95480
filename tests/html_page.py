"""Reads a page as strictly as nothing else does: every tag closed, nothing from outside, every picture whole."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np

VOID = {"meta", "img", "br", "wbr", "hr", "input", "link"}


def plainly(text: str) -> str:
    """With the spaces and the minus of a keyboard."""
    return " ".join(text.replace("−", "-").split())


class Page(HTMLParser):
    """Every tag closed in its order, every attribute, and the text of the page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.styles: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"left open: {self.open}"
        self.text = plainly(" ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {tag}"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data):
        (self.styles if self.open and self.open[-1] == "style" else self.words).append(data)

    def values(self, *names: str) -> list[str]:
        return [value for _, name, value in self.attributes if name in names]


def looked_at(path: Path) -> Page:
    """The page, after everything that every page has to keep was checked."""
    html = path.read_text("utf-8")
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert not re.search(r"https?:", html, re.IGNORECASE)
    assert "@import" not in html
    assert "url(" not in html
    tags = {tag for tag, _, _ in page.attributes}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    ids = page.values("id")
    assert len(set(ids)) == len(ids)
    for address in page.values("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
        assert address.startswith("data:image/") or address.removeprefix("#") in ids, address
        if address.startswith("data:"):
            assert picture(address) is not None
    policy = page.values("content")
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in policy
    return page


def picture(address: str) -> np.ndarray:
    data = base64.b64decode(address.partition(",")[2], validate=True)
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
