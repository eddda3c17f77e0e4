"""The whole recipe of ChatGPT, from raw text to an aligned model, on real text in minutes."""
