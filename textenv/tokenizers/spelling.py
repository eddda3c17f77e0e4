"""How byte-level vocabularies spell bytes as characters."""


def byte_of_character() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable ones stay as they are, the rest follow U+00FF."""
    prints = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
    rest = [byte for byte in range(256) if byte not in prints]
    return {chr(byte): byte for byte in prints} | {chr(256 + i): b for i, b in enumerate(rest)}
