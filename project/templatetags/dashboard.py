"""`{% linked links name text %}`: the text, as a link where the reader may open the page."""

from collections.abc import Mapping

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.simple_tag
def linked(links: Mapping[str, str], name: str, text: str) -> SafeString | str:
    """`text`, linked to the page called `name` when `links` has it."""
    return format_html('<a href="{}">{}</a>', links[name], text) if name in links else text
