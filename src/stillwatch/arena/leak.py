"""Does a made log give its truth away in single requests?

A gradient-boosted classifier sees surface features of one request at a time and is tested on operations and
accounts that it was not trained on. An AUC near one half means that the generator does not leak.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from stillwatch.schema.errors import MissingExtraError, ResultError, Where

FEATURES = (
    "prompt_chars",
    "words",
    "digit_share",
    "comma_share",
    "stop_share",
    "other_punctuation_share",
    "upper_share",
    "non_ascii_share",
    "newlines",
    "has_system",
    "max_tokens",
    "temperature",
    "stream",
    "n_messages",
    "status",
    "hour_of_day",
    "input_tokens",
    "output_tokens",
    "endpoint",
)
LARGEST_SAMPLE = 60_000
_NEITHER = re.compile(r"[^\w\s.,]")


@dataclass(frozen=True)
class LeakReport:
    """Result of the check. `base_rate` is the average precision of chance; AUC is the mean over folds."""

    auc: float
    auc_single_turn: float
    """Against honest requests that also stand alone (at most two messages): programs with programs."""
    average_precision: float
    base_rate: float
    auc_by_fold: tuple[float, ...]
    rows: int

    def __str__(self) -> str:
        folds = ", ".join(f"{a:.3f}" for a in self.auc_by_fold)
        return (
            f"single-request leak: AUC {self.auc:.3f} (folds {folds}), "
            f"{self.auc_single_turn:.3f} against requests that stand alone; "
            f"average precision {self.average_precision:.3f} "
            f"at base rate {self.base_rate:.3f}; {self.rows} requests"
        )


def leak_check(log_dir: Path, *, seed: int = 0, folds: int = 3, trees: int = 150) -> LeakReport:
    """Train on some operations and accounts, test on the others; features of single exchanges only.

    Raises MissingExtraError without scikit-learn and ResultError where the log has no attackers or no truth.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.metrics import average_precision_score, roc_auc_score
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "arena", needed_for="the leak check") from error
    truth = log_dir / "truth"
    if not (truth / "exchanges.parquet").exists():
        raise ResultError(
            "the folder has no truth", where=Where(file=log_dir.name), hint="make it with arena make"
        )
    log = pq.read_table(log_dir / "exchanges.parquet", columns=_columns())
    flags = pq.read_table(truth / "exchanges.parquet")
    labels = dict(zip(flags["exchange_id"].to_pylist(), flags["harvest"].to_pylist(), strict=True))
    accounts = pq.read_table(truth / "accounts.parquet")
    codes = accounts["account_id"].to_pylist()
    operation = dict(zip(codes, accounts["operation"].to_pylist(), strict=True))
    rng = np.random.default_rng([seed, 5])
    if log.num_rows > LARGEST_SAMPLE:
        log = log.take(np.sort(rng.choice(log.num_rows, LARGEST_SAMPLE, replace=False)))
    target = np.array([labels[e] for e in log["exchange_id"].to_pylist()])
    names = sorted({o for o in operation.values() if o is not None})
    if len(names) < 2 or not target.any():
        raise ResultError("the leak check needs at least two operations", where=Where(file=log_dir.name))
    order = rng.permutation(len(names))
    operation_fold = {names[int(i)]: position % folds for position, i in enumerate(order)}
    random_fold = dict(zip(codes, rng.integers(0, folds, len(codes)).tolist(), strict=True))
    fold = np.array([_fold(a, operation, operation_fold, random_fold) for a in log["account_id"].to_pylist()])
    features = _features(log)
    predicted = np.zeros(len(target))
    by_fold: list[float] = []
    single: list[float] = []
    for number in range(folds):
        test = fold == number
        if target[test].all() or not target[test].any() or not target[~test].any():
            continue
        model = HistGradientBoostingClassifier(max_iter=trees, learning_rate=0.1, random_state=seed)
        with threadpool_limits(limits=1):  # spinning threads on a busy machine cost more than they give
            model.fit(features[~test], target[~test])
            predicted[test] = model.predict_proba(features[test])[:, 1]
        by_fold.append(float(roc_auc_score(target[test], predicted[test])))
        alone = test & (features[:, FEATURES.index("n_messages")] <= 2)
        single.append(float(roc_auc_score(target[alone], predicted[alone])) if target[alone].any() else 0.5)
    return LeakReport(
        auc=float(np.mean(by_fold)),
        auc_single_turn=float(np.mean(single)),
        average_precision=float(average_precision_score(target, predicted)),
        base_rate=float(target.mean()),
        auc_by_fold=tuple(by_fold),
        rows=len(target),
    )


def _columns() -> list[str]:
    return [
        "exchange_id",
        "account_id",
        "ts",
        "prompt",
        "system",
        "max_tokens",
        "temperature",
        "stream",
        "n_messages",
        "status",
        "input_tokens",
        "output_tokens",
        "endpoint",
    ]


def _fold(
    account: str, operation: dict[str, str | None], folds: dict[str, int], random: dict[str, int]
) -> int:
    name = operation[account]
    return random[account] if name is None else folds[name]


def _features(log: object) -> np.ndarray:
    """Surface features, shape (rows, len(FEATURES)); missing settings are NaN."""
    columns = {name: log[name].to_pylist() for name in _columns()}  # type: ignore[index]
    rows = []
    endpoints = {name: float(i) for i, name in enumerate(sorted({e or "" for e in columns["endpoint"]}))}
    for i, prompt in enumerate(columns["prompt"]):
        text = prompt or ""
        size = max(1, len(text))
        moment = columns["ts"][i]
        rows.append(
            (
                len(text),
                text.count(" ") + 1,
                sum(c.isdigit() for c in text) / size,
                text.count(",") / size,
                text.count(".") / size,
                len(_NEITHER.findall(text)) / size,
                sum(c.isupper() for c in text) / size,
                sum(c > "\x7f" for c in text) / size,
                text.count("\n"),
                columns["system"][i] is not None,
                _number(columns["max_tokens"][i]),
                _number(columns["temperature"][i]),
                columns["stream"][i],
                columns["n_messages"][i],
                columns["status"][i],
                moment.hour,
                columns["input_tokens"][i],
                _number(columns["output_tokens"][i]),
                endpoints[columns["endpoint"][i] or ""],
            )
        )
    return np.array(rows, dtype=np.float64)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
