"""Values in a template are text, whatever they hold."""

import jinja2
import pytest

from medseg.system.html import own_file, render


def test_values_are_escaped_and_a_missing_one_is_an_error():
    card = render("medseg.visualization", "card.html", name="<b>&", picture='"><i>', facts={"a'": "<u>"})
    assert "<b>&lt;b&gt;&amp;</b>" in card
    assert 'base64,&#34;&gt;&lt;i&gt;"' in card
    assert "<th>a&#39;</th><td>&lt;u&gt;</td>" in card
    with pytest.raises(jinja2.UndefinedError):
        render("medseg.visualization", "card.html", name="")


def test_own_files_are_included_unescaped():
    assert "<" in own_file("medseg.reporting", "page.js").__html__()
