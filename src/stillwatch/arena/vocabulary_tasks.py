"""Instruction wording for particular tasks, and instructions in other languages than English.

Everything here is our own wording, in the notation of `stillwatch.arena.vocabulary`. Operations and honest
kinds of account draw from the same lists: no line in this file belongs to one side.
"""

# Patterns read best one to a line, however long.
# ruff: noqa: E501

from __future__ import annotations

ELICIT = (
    "[Before|Ahead of] the answer, [write|set] out [every|each] [step|consideration] that leads to it.",
    "[Explain|Show] your [reasoning|thinking] [in full|step by step], then [give|state] the [answer|result].",
    "[Record|Document] [why|how] you [reached|came to] the [decision|answer], [one step per line|in numbered steps].",
    "[Put|Place] your [reasoning|considerations] between <<word>> tags [before|ahead of] the [answer|reply].",
    "[State|List] the [assumptions|facts] you used and [each|every] [inference|step] from them to the [answer|conclusion].",
    "[For the file|For our records], [describe|write down] the [full|complete] [line of thought|reasoning] behind the [answer|outcome].",
)
"""Lines that ask for reasoning: added by regulated firms, teachers, and operations alike."""

RUBRICS = (
    "[Give|Assign] a [mark|score] from 1 to <small> for each of: [clarity|accuracy], [depth|completeness], [tone|style].",
    "[Criteria|Rubric]: [correctness|accuracy] counts half, [helpfulness|usefulness] a third, [form|style] the rest.",
    "[Compare|Weigh] [both|the two] [answers|replies] and [name|state] the better one with a [margin|confidence].",
    "[Deduct|Take off] one point for every [unsupported claim|factual slip]; [never|do not] go below zero.",
    "[A score|A mark] of <small> means that a [careful|demanding] reader would [change|correct] nothing.",
)
"""Grading rules of LLM judges."""

TASKS_IN: dict[str, dict[str, tuple[str, ...]]] = {
    "zh": {
        "reasoning": (
            "请[一步一步|逐步]推理下面关于<a>的[问题|题目]，并考虑<b>。",
            "请写出得到<a>与<b>的[答案|结论]的[完整|全部][思路|推理过程]。",
        ),
        "grading": ("请根据<b>给下面关于<a>的[回答|文字]打分，[满分十分|一到十分]。",),
        "summary": ("请把下面关于<a>的内容[概括|总结]给关心<b>的读者。",),
        "translation": ("请[翻译|转述]下面关于<a>的段落，保持<b>的语气。",),
        "extraction": ("请[提取|找出]下面提到<a>的要点，归入<b>。",),
    },
    "ja": {
        "reasoning": (
            "<a>についての次の[問題|問い]を、<b>を踏まえて[順を追って|一歩ずつ]考えてください。",
            "<a>と<b>の[答え|結論]に至る[考え方|推論]を[すべて|詳しく]書いてください。",
        ),
        "grading": ("<a>についての次の[回答|文章]を<b>の観点から十点満点で採点してください。",),
        "summary": ("<a>についての次の内容を、<b>に関心のある人向けに[要約|整理]してください。",),
        "translation": ("<a>についての次の文章を、<b>の調子を保って[訳して|翻訳して]ください。",),
        "extraction": ("次の文から<a>に関する[要点|事実]を抜き出し、<b>に分類してください。",),
    },
    "es": {
        "reasoning": (
            "[Razona|Analiza] paso a paso el siguiente [problema|caso] sobre <a> teniendo en cuenta <b>.",
            "[Escribe|Expón] todo el [razonamiento|proceso] que lleva a la [respuesta|conclusión] sobre <a> y <b>.",
        ),
        "grading": ("[Puntúa|Califica] del 1 al 10 la siguiente [respuesta|redacción] sobre <a> según <b>.",),
        "summary": ("[Resume|Condensa] el texto sobre <a> para quien se interesa por <b>.",),
        "translation": ("[Traduce|Adapta] el pasaje sobre <a> conservando el tono de <b>.",),
        "extraction": ("[Extrae|Reúne] los [datos|puntos] sobre <a> y clasifícalos en <b>.",),
    },
    "de": {
        "reasoning": (
            "[Überlege|Arbeite] die folgende [Aufgabe|Frage] zu <a> Schritt für Schritt durch und beachte <b>.",
            "[Schreibe|Halte] den [ganzen|vollständigen] Gedankengang fest, der zur [Antwort|Lösung] über <a> und <b> führt.",
        ),
        "grading": ("[Bewerte|Benote] die folgende [Antwort|Stelle] über <a> nach <b> von 1 bis 10.",),
        "summary": ("[Fasse|Kürze] den Text über <a> für Leser zusammen, die sich für <b> interessieren.",),
        "translation": ("[Übersetze|Übertrage] den Abschnitt über <a> im Ton von <b>.",),
        "extraction": ("[Suche|Sammle] alle [Angaben|Fakten] zu <a> und ordne sie <b> zu.",),
    },
    "pt": {
        "reasoning": (
            "[Resolva|Analise] passo a passo a [questão|tarefa] sobre <a> considerando <b>.",
            "[Escreva|Registre] todo o [raciocínio|processo] que leva à [resposta|conclusão] sobre <a> e <b>.",
        ),
        "grading": ("[Avalie|Pontue] de 1 a 10 a [resposta|redação] sobre <a> segundo <b>.",),
        "summary": ("[Resuma|Condense] o texto sobre <a> para quem se interessa por <b>.",),
        "translation": ("[Traduza|Adapte] o trecho sobre <a> mantendo o tom de <b>.",),
        "extraction": ("[Extraia|Reúna] os [dados|pontos] sobre <a> e classifique em <b>.",),
    },
}
"""The same tasks in the other languages of the material."""
