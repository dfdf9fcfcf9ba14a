"""Parts of addresses."""

from django.urls import register_converter
from django.urls.converters import StringConverter


class AnyTextConverter(StringConverter):
    """Any text at all: Django's `path` takes slashes, but no line breaks."""

    regex = "(?s:.+)"


register_converter(AnyTextConverter, "anytext")
