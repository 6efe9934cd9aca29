"""The page that shows the life of a job is drawn from the table that the contract suite reads."""

from lifecycle_page import page

from .blocks import ROOT


def test_the_page_is_the_table() -> None:
    assert ROOT.joinpath("docs", "lifecycle.md").read_text("utf-8") == page(), "make docs writes it anew"
