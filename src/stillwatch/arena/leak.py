"""Does a made log give its truth away in single requests?

A gradient-boosted classifier sees surface features of one request at a time and is tested on operations and
accounts that it was not trained on. An AUC near one half means that the generator does not leak.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.arena.files import exchange_files
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
CONTROLS, LEAST_CONTROL = 3, 40
"""Honest groups that a single operation is compared with, and the sampled requests that one needs."""
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
    control: tuple[float, ...] | None = None
    """With one operation: the AUC of honest groups, each told from everybody else in the same way."""

    def __str__(self) -> str:
        if self.control is not None:
            honest = ", ".join(f"{a:.3f}" for a in self.control)
            beside = (
                f"{honest} for honest groups told apart in the same way"
                if honest
                else (
                    "and no honest group has enough requests in the sample to be told apart in the same way"
                )
            )
            return (
                f"single-request leak: AUC {self.auc:.3f} for other accounts of the one operation, {beside}; "
                f"{self.rows} requests"
            )
        folds = ", ".join(f"{a:.3f}" for a in self.auc_by_fold)
        return (
            f"single-request leak: AUC {self.auc:.3f} (folds {folds}), "
            f"{self.auc_single_turn:.3f} against requests that stand alone; "
            f"average precision {self.average_precision:.3f} "
            f"at base rate {self.base_rate:.3f}; {self.rows} requests"
        )


def leak_check(log_dir: Path, *, seed: int = 0, folds: int = 3, trees: int = 150) -> LeakReport:
    """Train on some operations and accounts, test on the others; features of single exchanges only.

    With one operation, other accounts of the same operation are the test: a template looks like itself, so the AUC is
    compared with that of honest groups which are told from everybody else in the same way (`control`).
    Raises MissingExtraError without scikit-learn and ResultError where the log has no attackers or no truth.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "arena", needed_for="the leak check") from error
    truth = log_dir / "truth"
    if not (truth / "exchanges.parquet").exists():
        raise ResultError(
            "the folder has no truth", where=Where(file=log_dir.name), hint="make it with arena make"
        )
    harvest = pq.read_table(truth / "exchanges.parquet", columns=["harvest"])["harvest"].to_numpy()
    accounts = pq.read_table(truth / "accounts.parquet")
    codes = accounts["account_id"].to_pylist()
    operation = dict(zip(codes, accounts["operation"].to_pylist(), strict=True))
    names = sorted({o for o in operation.values() if o is not None})
    if not names or not harvest.any():
        raise ResultError("the log has no operation to look for", where=Where(file=log_dir.name))
    rng = np.random.default_rng([seed, 5])
    several = len(names) > 1
    rows = _sample(rng, harvest, several)
    log = _rows(log_dir, rows)
    target = harvest[rows]
    owner = log["account_id"].to_pylist()
    features = _features(log)
    random_fold = dict(zip(codes, rng.integers(0, folds, len(codes)).tolist(), strict=True))
    fold = np.array([random_fold[a] for a in owner])
    control: tuple[float, ...] | None = None
    if several:
        order = rng.permutation(len(names))
        operation_fold = {names[int(i)]: position % folds for position, i in enumerate(order)}
        fold = np.array([_fold(a, operation, operation_fold, random_fold) for a in owner])
    else:
        group = dict(zip(codes, accounts["group_id"].to_pylist(), strict=True))
        control = _control(features, owner, group, operation, fold, seed, folds, trees)
    predicted, by_fold, single = _tested(features, target, fold, seed, folds, trees)
    from sklearn.metrics import average_precision_score

    return LeakReport(
        auc=float(np.mean(by_fold)),
        auc_single_turn=float(np.mean(single)),
        average_precision=float(average_precision_score(target, predicted)),
        base_rate=float(target.mean()),
        auc_by_fold=tuple(by_fold),
        rows=len(target),
        control=control,
    )


def _sample(rng: np.random.Generator, harvest: np.ndarray, several: bool) -> np.ndarray:
    """Rows that are looked at. Of a single operation as many as a third, or a rare one would not be there at all."""
    if len(harvest) <= LARGEST_SAMPLE:
        return np.arange(len(harvest))
    if several:
        return np.sort(rng.choice(len(harvest), LARGEST_SAMPLE, replace=False))
    mine, others = np.flatnonzero(harvest), np.flatnonzero(~harvest)
    mine = rng.choice(mine, min(len(mine), LARGEST_SAMPLE // 3), replace=False)
    return np.sort(np.concatenate((mine, rng.choice(others, LARGEST_SAMPLE - len(mine), replace=False))))


def _rows(log_dir: Path, rows: np.ndarray) -> pa.Table:
    """The sampled exchanges; a large log lies in several files, whose order is that of the truth."""
    parts, before = [], 0
    for path in exchange_files(log_dir):
        file = pq.ParquetFile(path)
        for number in range(file.num_row_groups):
            count = file.metadata.row_group(number).num_rows
            first, last = np.searchsorted(rows, (before, before + count))
            if last > first:
                group = file.read_row_group(number, columns=_columns())
                parts.append(group.take(rows[first:last] - before))
            before += count
    return pa.concat_tables(parts)


def _tested(
    features: np.ndarray, target: np.ndarray, fold: np.ndarray, seed: int, folds: int, trees: int
) -> tuple[np.ndarray, list[float], list[float]]:
    """Predictions for rows that the model has not seen; AUC of each fold, and against requests that stand alone."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

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
    return predicted, by_fold, single


def _control(
    features: np.ndarray,
    owner: list[str],
    group: dict[str, str | None],
    operation: dict[str, str | None],
    fold: np.ndarray,
    seed: int,
    folds: int,
    trees: int,
) -> tuple[float, ...]:
    """AUC with which the programs of those honest groups that have most rows are told from everything else.

    A harvest is a program's requests, without what its accounts do besides: so are these (at most two messages).
    """
    alone = features[:, FEATURES.index("n_messages")] <= 2
    programs = [a for a, bulk in zip(owner, alone.tolist(), strict=True) if bulk and operation[a] is None]
    counts = Counter(g for g in map(group.__getitem__, programs) if g is not None)
    found = []
    for name, rows in counts.most_common(CONTROLS):
        if rows < LEAST_CONTROL:
            break
        target = np.array([group[a] == name for a in owner]) & alone
        _, by_fold, _ = _tested(features, target, fold, seed, folds, trees)
        if by_fold:
            found.append(float(np.mean(by_fold)))
    return tuple(found)


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
