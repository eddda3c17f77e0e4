"""The recipe whose product is an assistant: all stages on dialogues of a closed world."""
