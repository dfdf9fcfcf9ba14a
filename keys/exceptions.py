"""What can be wrong with a key, said without ever showing one."""


class KeyConfigurationError(Exception):
    """A key variable is missing or unusable. The message names the variable and the command, never the value."""


class UnusableKey(ValueError):
    """The value is no key: not base64, not 32 bytes, or a value that everybody knows."""
