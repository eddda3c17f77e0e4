"""Tiny random models of Hugging Face with a chat template, as they lie in a folder."""

import torch

CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FAMILIES = ("gpt2", "llama", "gpt neox")


def byte_tokenizer(chat_template=CHAT):
    """A tokenizer of transformers whose tokens are bytes, with the marks of `CHAT`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def publish(folder, family="gpt2", context=160, chat_template=CHAT):
    """Write a model and its tokenizer into `folder`, as `save_pretrained` does."""
    import transformers as t

    tokenizer = byte_tokenizer(chat_template)
    tokenizer.save_pretrained(folder)
    ids = {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": 256}
    rotary = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": context,
    }
    made = {
        "gpt2": (
            t.GPT2LMHeadModel,
            t.GPT2Config,
            {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": context},
        ),
        "llama": (t.LlamaForCausalLM, t.LlamaConfig, {**rotary, "num_key_value_heads": 1}),
        "gpt neox": (t.GPTNeoXForCausalLM, t.GPTNeoXConfig, rotary),
        "t5": (
            t.T5ForConditionalGeneration,
            t.T5Config,
            {
                "d_model": 16,
                "d_kv": 8,
                "d_ff": 24,
                "num_heads": 2,
                "num_layers": 1,
                "n_positions": context,
                "decoder_start_token_id": 0,
                "pad_token_id": 0,
            },
        ),
    }
    model_class, config_class, shape = made[family]
    torch.manual_seed(0)
    model_class(config_class(**shape, **ids)).save_pretrained(folder)
    return folder
