"""Records in the forms of public datasets, with words of our own, and what they say."""


def talk(*texts, system=None):
    """Messages of a user and an assistant in turn."""
    roles = ("user", "assistant")
    said = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return said if system is None else [{"role": "system", "content": system}, *said]


ASK, SAY = "Name a river.", "The Elbe."
MORE, THEN = "And a lake?", "Lake Garda."
ONE, TWO = talk(ASK, SAY), talk(ASK, SAY, MORE, THEN)

# The form's name: a record, and the conversation that it is.
CONVERSATIONS = {
    "OpenAI": ({"messages": TWO}, TWO),
    "OpenAI in parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ASK}]}, ONE[1]]},
        ONE,
    ),
    "no_robots": (
        {"prompt": ASK, "prompt_id": "7f", "messages": ONE, "category": "Open QA"},
        ONE,
    ),
    "UltraChat": ({"id": "3", "data": [ASK, SAY, MORE, THEN]}, TWO),
    "UltraChat 200k": ({"prompt": ASK, "prompt_id": "9a", "messages": TWO}, TWO),
    "ShareGPT": (
        {
            "id": "a1_0",
            "conversations": [
                {"from": "human", "value": ASK},
                {"from": "gpt", "value": SAY},
                {"from": "human", "value": MORE},
                {"from": "gpt", "value": THEN},
            ],
        },
        TWO,
    ),
    "ShareGPT with system": (
        {
            "system": "Be brief.",
            "conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": SAY}],
        },
        talk(ASK, SAY, system="Be brief."),
    ),
    "ShareGPT with tools": (
        {
            "conversations": [
                {"from": "human", "value": "2 + 2?"},
                {"from": "function_call", "value": '{"name": "add"}'},
                {"from": "observation", "value": "4"},
                {"from": "gpt", "value": "It is 4."},
            ]
        },
        [
            {"role": "user", "content": "2 + 2?"},
            {"role": "assistant", "content": '{"name": "add"}'},
            {"role": "tool", "content": "4"},
            {"role": "assistant", "content": "It is 4."},
        ],
    ),
    "LMSYS chat": ({"conversation_id": "x", "model": "m", "conversation": ONE, "turn": 1}, ONE),
    "Alpaca": ({"instruction": "Name a river.", "input": "", "output": SAY}, ONE),
    "Alpaca with input": (
        {"instruction": "Sort.", "input": "b, a", "output": "a, b", "text": "Below is ..."},
        talk("Sort.\nb, a", "a, b"),
    ),
    "Alpaca with history": (
        {
            "instruction": MORE,
            "input": "",
            "output": THEN,
            "system": "Be brief.",
            "history": [[ASK, SAY]],
        },
        talk(ASK, SAY, MORE, THEN, system="Be brief."),
    ),
    "Dolly": (
        {
            "instruction": "Who is it about?",
            "context": "Ann sings.",
            "response": "Ann.",
            "category": "closed_qa",
        },
        talk("Who is it about?\nAnn sings.", "Ann."),
    ),
    "OpenOrca": (
        {"id": "flan.1", "system_prompt": "Be brief.", "question": ASK, "response": SAY},
        talk(ASK, SAY, system="Be brief."),
    ),
    "GSM8K": (
        {"question": "1 and 2?", "answer": "It is 3.\n#### 3"},
        talk("1 and 2?", "It is 3.\n#### 3"),
    ),
    "BELLE": (
        {"instruction": "说一条河。", "input": "", "output": "长江。"},
        talk("说一条河。", "长江。"),
    ),
    "COIG": (
        {
            "instruction": "回答问题。",
            "conversations": [
                {"question": "说一条河。", "answer": "长江。"},
                {"question": "湖呢", "answer": "太湖。"},
            ],
        },
        talk("说一条河。", "长江。", "湖呢", "太湖。"),
    ),
    "Firefly": (
        {"category": "c", "conversation": [{"human": "说一条河。", "assistant": "长江。"}]},
        talk("说一条河。", "长江。"),
    ),
    "MOSS": (
        {
            "conversation_id": "5",
            "meta_instruction": "You are MOSS.\n",
            "num_turns": 1,
            "chat": {
                "turn_1": {
                    "Human": "<|Human|>: 说一条河。<eoh>\n",
                    "Inner Thoughts": "<|Inner Thoughts|>: None<eot>\n",
                    "Commands": "<|Commands|>: None<eoc>\n",
                    "Tool Responses": "<|Results|>: None<eor>\n",
                    "MOSS": "<|MOSS|>: 长江。<eom>\n",
                }
            },
        },
        talk("说一条河。", "长江。", system="You are MOSS.\n"),
    ),
    "OpenAssistant": (
        {
            "message_tree_id": "t",
            "tree_state": "ready_for_export",
            "prompt": {
                "message_id": "t",
                "text": ASK,
                "role": "prompter",
                "replies": [
                    {"text": "No.", "role": "assistant", "rank": 1, "replies": []},
                    {
                        "text": SAY,
                        "role": "assistant",
                        "rank": 0,
                        "replies": [
                            {
                                "text": MORE,
                                "role": "prompter",
                                "replies": [{"text": THEN, "role": "assistant", "replies": []}],
                            }
                        ],
                    },
                ],
            },
        },
        TWO,
    ),
    "Guanaco": (
        {"text": f"### Human: {ASK}### Assistant: {SAY}### Human: {MORE}### Assistant: {THEN}"},
        TWO,
    ),
    "hh-rlhf, chosen side": (
        {
            "chosen": f"\n\nHuman: {ASK}\n\nAssistant: {SAY}",
            "rejected": f"\n\nHuman: {ASK}\n\nAssistant: No.",
        },
        ONE,
    ),
    "TRL prompt and completion": ({"prompt": ONE[:1], "completion": ONE[1:]}, ONE),
    "TRL chosen": ({"chosen": TWO, "rejected": [*TWO[:3], ONE[1]]}, TWO),
    "TRL chosen behind a prompt": (
        {"prompt": TWO[:3], "chosen": TWO[3:], "rejected": ONE[1:]},
        TWO,
    ),
    "UltraFeedback binarised": (
        {"prompt": ASK, "chosen": ONE, "rejected": talk(ASK, "No."), "score_chosen": 8.0},
        ONE,
    ),
}

# The form's name: a record, its prompt and its continuation, as they are.
TEXTS = {
    "TRL texts": ({"prompt": "The Elbe is", "completion": " a river."}, "The Elbe is", " a river."),
    "HelpSteer": ({"prompt": ASK, "response": SAY, "helpfulness": 4, "verbosity": 2}, ASK, SAY),
    "Intel pairs": ({"prompt": ASK, "chosen": SAY, "rejected": "No."}, ASK, SAY),
    "FLAN": ({"inputs": "Is it wet? ", "targets": "yes", "task": "boolq"}, "Is it wet? ", "yes"),
    "P3": (
        {
            "inputs": [71, 3],
            "targets": [2, 1],
            "inputs_pretokenized": "Is it wet?",
            "targets_pretokenized": "\nyes",
        },
        "Is it wet?",
        "\nyes",
    ),
    "pCLUE": (
        {"input": "选词", "target": "江", "answer_choices": ["江", "山"], "type": "mrc"},
        "选词",
        "江",
    ),
}

BETTER, WORSE = SAY, "No."
BASE = {"answers": [BETTER, WORSE]}
QUESTION = talk(ASK)
HH = f"\n\nHuman: {ASK}\n\nAssistant: {SAY}\n\nHuman: {MORE}\n\nAssistant:"
# The form's name: a record, what is asked (a text or messages), the answers, ranks, and the rest.
RANKINGS = {
    "ours": (
        {
            "prompt": ASK,
            "answers": ["a", "b", "c"],
            "ranks": [2, 1, 2],
            "sources": ["m", "n", "m"],
            "labeller": "Ann",
            "criteria": {"truth": [1, 5, None]},
        },
        ASK,
        ["a", "b", "c"],
        [2, 1, 2],
        {
            "sources": ("m", "n", "m"),
            "labeller": "Ann",
            "criteria": {"truth": (1, 5, None)},
        },
    ),
    "ours with messages and scores": (
        {"prompt": TWO[:3], **BASE, "scores": [0.5, 0.5], "criteria": "kindness"},
        TWO[:3],
        [BETTER, WORSE],
        [1, 1],
        {"criteria": {"kindness": ()}},
    ),
    "hh-rlhf": (
        {"chosen": HH + " Lake Garda.", "rejected": HH + " No."},
        HH,
        [" Lake Garda.", " No."],
        [1, 2],
        {},
    ),
    "TRL texts": ({"prompt": ASK, "chosen": BETTER, "rejected": WORSE}, ASK, None, [1, 2], {}),
    "TRL messages": (
        {"prompt": QUESTION, "chosen": ONE[1:], "rejected": talk("", WORSE)[1:]},
        QUESTION,
        None,
        [1, 2],
        {},
    ),
    "TRL messages, prompt within": (
        {"chosen": TWO, "rejected": [*TWO[:3], {"role": "assistant", "content": WORSE}]},
        TWO[:3],
        [THEN, WORSE],
        [1, 2],
        {},
    ),
    "UltraFeedback": (
        {
            "source": "evol",
            "instruction": ASK,
            "models": ["m", "n", "o"],
            "completions": [
                {
                    "model": model,
                    "response": text,
                    "overall_score": overall,
                    "fine-grained_score": score,
                    "annotations": {"honesty": {"Rating": rating, "Rationale": "."}},
                }
                for model, text, overall, score, rating in (
                    ("m", "a", 9.0, 3.0, "3"),
                    ("n", "b", 1.0, 4.5, "N/A"),
                    ("o", "c", 7.0, 3.0, "2"),
                )
            ],
        },
        ASK,
        ["a", "b", "c"],
        [2, 1, 2],
        {"sources": ("m", "n", "o"), "criteria": {"honesty": (3.0, None, 2.0)}},
    ),
    "UltraFeedback binarised": (
        {"prompt": ASK, "chosen": ONE, "rejected": talk(ASK, WORSE), "score_chosen": 8.0},
        QUESTION,
        None,
        [1, 2],
        {},
    ),
    "Nectar": (
        {
            "prompt": f"\n\nHuman: {ASK}\n\nAssistant: ",
            "answers": [
                {"answer": WORSE, "model": "m", "rank": 2.0},
                {"answer": BETTER, "model": "n", "rank": 1.0},
            ],
            "turns": 1,
        },
        f"\n\nHuman: {ASK}\n\nAssistant: ",
        [WORSE, BETTER],
        [2, 1],
        {"sources": ("m", "n")},
    ),
    "WebGPT": (
        {
            "question": {"dataset": "eli5", "id": "1", "full_text": ASK},
            "quotes_0": {},
            "answer_0": WORSE,
            "answer_1": BETTER,
            "score_0": -1.0,
            "score_1": 1.0,
        },
        ASK,
        [WORSE, BETTER],
        [2, 1],
        {},
    ),
    "WebGPT, a tie": (
        {
            "question": {"full_text": ASK},
            "answer_0": WORSE,
            "answer_1": BETTER,
            "score_0": 0.0,
            "score_1": 0.0,
        },
        ASK,
        [WORSE, BETTER],
        [1, 1],
        {},
    ),
    "OpenAI summaries": (
        {
            "info": {"id": "t3", "post": "It rained.", "subreddit": "s"},
            "summaries": [
                {"text": WORSE, "policy": "sup1", "note": ""},
                {"text": BETTER, "policy": "ref", "note": ""},
            ],
            "choice": 1,
            "worker": "w5",
        },
        "It rained.",
        [WORSE, BETTER],
        [2, 1],
        {"sources": ("sup1", "ref"), "labeller": "w5"},
    ),
    "SHP": (
        {
            "post_id": "p",
            "history": ASK,
            "human_ref_A": WORSE,
            "human_ref_B": BETTER,
            "labels": 0,
            "score_A": 3,
            "score_B": 9,
        },
        ASK,
        [WORSE, BETTER],
        [2, 1],
        {},
    ),
    "HelpSteer2": (
        {"prompt": ASK, "response_1": BETTER, "response_2": WORSE, "preference_strength": -2},
        ASK,
        None,
        [1, 2],
        {},
    ),
    "HelpSteer3": (
        {
            "domain": "general",
            "context": TWO[:3],
            "response1": WORSE,
            "response2": THEN,
            "overall_preference": 3,
        },
        TWO[:3],
        [WORSE, THEN],
        [2, 1],
        {},
    ),
    "SafeRLHF": (
        {
            "prompt": ASK,
            "response_0": WORSE,
            "response_1": BETTER,
            "better_response_id": 1,
            "safer_response_id": 0,
        },
        ASK,
        [WORSE, BETTER],
        [2, 1],
        {},
    ),
    "Chatbot Arena": (
        {
            "question_id": "q",
            "model_a": "m",
            "model_b": "n",
            "winner": "tie (bothbad)",
            "judge": "arena_user_1",
            "conversation_a": ONE,
            "conversation_b": talk(ASK, WORSE),
        },
        QUESTION,
        None,
        [1, 1],
        {"sources": ("m", "n"), "labeller": "arena_user_1"},
    ),
    "Stack Exchange": (
        {
            "qid": 1,
            "question": ASK,
            "answers": [
                {"answer_id": 2, "author": "x", "pm_score": 0, "selected": False, "text": WORSE},
                {"answer_id": 3, "author": "y", "pm_score": 4, "selected": True, "text": BETTER},
            ],
        },
        ASK,
        [WORSE, BETTER],
        [2, 1],
        {},
    ),
    "Orca pairs": (
        {"system": "Be brief.", "question": ASK, "chosen": BETTER, "rejected": WORSE},
        talk(ASK, system="Be brief."),
        None,
        [1, 2],
        {},
    ),
    "LLaMA-Factory": (
        {
            "conversations": [{"from": "human", "value": ASK}],
            "chosen": {"from": "gpt", "value": BETTER},
            "rejected": {"from": "gpt", "value": WORSE},
        },
        QUESTION,
        None,
        [1, 2],
        {},
    ),
    "RewardBench": (
        {
            "prompt": ASK,
            "chosen": BETTER,
            "chosen_model": "m",
            "rejected": WORSE,
            "rejected_model": "human",
            "subset": "s",
        },
        ASK,
        None,
        [1, 2],
        {"sources": ("m", "human")},
    ),
    "OpenAssistant": (
        CONVERSATIONS["OpenAssistant"][0],
        QUESTION,
        [WORSE, BETTER],
        [2, 1],
        {},
    ),
}
