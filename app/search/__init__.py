"""The search algorithms; numpy and scipy only."""

from app.search.algorithm import ALGORITHMS, Algorithm, Recipe, create
from app.search.choice import Choice, choose
from app.search.facts_json import (
    fact_from_json,
    fact_to_json,
    outcome_from_json,
    outcome_to_json,
    suggestion_from_json,
    suggestion_to_json,
)
from app.search.hyperband import Bracket, Hyperband, Rung, plan
from app.search.journal import Journal, JournalError
from app.search.sampler import Sampler
from app.search.scheduler import Scheduler
from app.search.space import Boolean, Categorical, Condition, Configuration, Float, Int, Parameter, Scale, Space, Value
from app.search.trial import (
    Completed,
    Ended,
    Fact,
    Failed,
    History,
    Measured,
    Outcome,
    Paused,
    Pruned,
    Reported,
    Started,
    Suggestion,
    Trial,
)

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Boolean",
    "Bracket",
    "Categorical",
    "Choice",
    "Completed",
    "Condition",
    "Configuration",
    "Ended",
    "Fact",
    "Failed",
    "Float",
    "History",
    "Hyperband",
    "Int",
    "Journal",
    "JournalError",
    "Measured",
    "Outcome",
    "Parameter",
    "Paused",
    "Pruned",
    "Recipe",
    "Reported",
    "Rung",
    "Sampler",
    "Scale",
    "Scheduler",
    "Space",
    "Started",
    "Suggestion",
    "Trial",
    "Value",
    "choose",
    "create",
    "fact_from_json",
    "fact_to_json",
    "outcome_from_json",
    "outcome_to_json",
    "plan",
    "suggestion_from_json",
    "suggestion_to_json",
]
