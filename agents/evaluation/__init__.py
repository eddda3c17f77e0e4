"""How good a policy's answers are to prompts it was not trained on, and how sure that is."""

from agents.evaluation.answers import Answers, Evaluation, answer_outputs, answer_prompts, evaluate
from agents.evaluation.asking import Query, Said, ask
from agents.evaluation.assistant import assistant_exam
from agents.evaluation.compare import (
    Row,
    compare,
    compare_answers,
    comparison_table,
    table_cells,
)
from agents.evaluation.conduct import Conduct, Exam, Judged, examine, gain
from agents.evaluation.conduct_tables import conduct_tables
from agents.evaluation.intervals import Interval, bootstrap_interval, win_rate
from agents.evaluation.judges import (
    JUDGES,
    Judge,
    PairJudge,
    Unscored,
    afinn_judge,
    chinese_judge,
    judge_reward,
    load_judge,
    textblob_judge,
)
from agents.evaluation.prompting import (
    Layout,
    Worked,
    ask_for_answer,
    chain_of_thought,
    extract_answer,
    few_shot,
    step_by_step,
    with_template,
)
from agents.evaluation.safety import (
    ToxicityClassifier,
    profanity_words,
    refuse_toxic,
    toxicity_penalty,
)
from agents.evaluation.text_measures import distinct_n, lengths, perplexity, repetition

__all__ = [
    "JUDGES",
    "Answers",
    "Conduct",
    "Evaluation",
    "Exam",
    "Interval",
    "Judge",
    "Judged",
    "Layout",
    "PairJudge",
    "Query",
    "Row",
    "Said",
    "ToxicityClassifier",
    "Unscored",
    "Worked",
    "afinn_judge",
    "answer_outputs",
    "answer_prompts",
    "ask",
    "ask_for_answer",
    "assistant_exam",
    "bootstrap_interval",
    "chain_of_thought",
    "chinese_judge",
    "compare",
    "compare_answers",
    "comparison_table",
    "conduct_tables",
    "distinct_n",
    "evaluate",
    "examine",
    "extract_answer",
    "few_shot",
    "gain",
    "judge_reward",
    "lengths",
    "load_judge",
    "perplexity",
    "profanity_words",
    "refuse_toxic",
    "repetition",
    "step_by_step",
    "table_cells",
    "textblob_judge",
    "toxicity_penalty",
    "win_rate",
    "with_template",
]
