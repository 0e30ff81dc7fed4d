"""The pages about the repository: what they name is there."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def test_the_page_about_ci_names_each_file() -> None:
    """Nothing lies in ci/ without a word on what it is for, and nothing is named that is not there."""
    ci = ROOT / "ci"
    page = (ci / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([^`]+)` ", page, re.MULTILINE)) | set(re.findall(r"\(`(bench/[^`]+)`\)", page))
    files = {
        str(path.relative_to(ci))
        for path in ci.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "README.md"
    }
    assert named == files


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "ARCHITECTURE.md"])
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    """A file that is moved takes the links to it along."""
    text = (ROOT / ".github" / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if not link.startswith("https:")]
    assert links
    assert [link for link in links if not (ROOT / ".github" / link).exists()] == []
