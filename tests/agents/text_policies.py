"""Small policies of every kind that read and write text, far from uniform."""

import torch
from tokenizer_kinds import BEGIN, END, byte_level, space_marks, tokenizer_of_kind
from tokenizers.processors import TemplateProcessing

from policies import EncoderDecoderPolicy, HuggingFacePolicy, TransformerConfig, TransformerPolicy

CONTEXT = 24
KINDS = ("ours", "gpt2", "llama", "lora", "t5")


def shaken(module):
    """The module with random numbers added to its weights."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.25 * torch.randn(parameter.shape, generator=generator))
    return module


def transformers_tokenizer(kind="gpt2"):
    """A tokenizer of transformers, which puts around texts what those of a family put."""
    from transformers import PreTrainedTokenizerFast

    made = space_marks() if kind == "llama" else byte_level()
    if around := {"llama": f"{BEGIN} $A", "t5": f"$A {END}"}.get(kind):
        special = [(name, made.token_to_id(name)) for name in (BEGIN, END)]
        made.post_processor = TemplateProcessing(single=around, special_tokens=special)
    begin = None if kind == "t5" else BEGIN  # T5 has none
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=begin, eos_token=END, pad_token=END
    )


def transformers_model(kind, tokenizer):
    """A tiny model of transformers with the vocabulary of `tokenizer`."""
    import transformers as t

    torch.manual_seed(0)
    ends = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    ends |= {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.eos_token_id}
    if kind == "llama":
        model = t.LlamaForCausalLM(
            t.LlamaConfig(
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=CONTEXT,
                **ends,
            )
        )
    elif kind == "t5":
        model = t.T5ForConditionalGeneration(
            t.T5Config(
                d_model=16,
                d_kv=8,
                d_ff=24,
                num_heads=2,
                num_layers=1,
                n_positions=CONTEXT,
                decoder_start_token_id=tokenizer.eos_token_id,
                initializer_factor=0.3,
                **ends,
            )
        )
    else:
        model = t.GPT2LMHeadModel(
            t.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=CONTEXT, **ends)
        )
    return shaken(model).eval()


def text_policy(kind):
    """A policy of one of `KINDS`."""
    if kind == "ours":
        tokenizer = tokenizer_of_kind("trained")
        config = TransformerConfig(tokenizer.vocab_size, CONTEXT, n_layer=1, n_head=2, n_embd=16)
        return shaken(TransformerPolicy(config, tokenizer=tokenizer))
    tokenizer = transformers_tokenizer(kind)
    if kind == "t5":
        return EncoderDecoderPolicy(transformers_model("t5", tokenizer), tokenizer, context=CONTEXT)
    policy = HuggingFacePolicy(transformers_model(kind, tokenizer), tokenizer)
    if kind == "lora":
        from peft import LoraConfig

        torch.manual_seed(1)
        policy.add_adapter(LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    return policy
