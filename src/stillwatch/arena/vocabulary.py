"""Word lists and sentence patterns of the built-in text source.

A pattern is plain text with slots in angle brackets, `<topic>` or `<num>`, filled independently from the
list of that name; square brackets hold alternatives, `[Write|Set down]`. Everything here is our own wording.
"""

# Word lists and patterns read best one to a line, however long.
# ruff: noqa: E501

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "topic": _words(
            "sourdough bread,tax brackets,tidal energy,violin practice,container ships,knee surgery,medieval guilds,"
            "beekeeping,linear regression,garden irrigation,train timetables,rental contracts,chess openings,"
            "black holes,wedding speeches,battery recycling,tomato blight,copyright law,marathon training,"
            "database indexes,coral reefs,mortgage rates,folk dances,cheese ageing,drone photography,bird migration,"
            "unit testing,school lunches,volcanic soil,opera history,carpentry joints,glacier melt,stage lighting,"
            "supply chains,language exchange,camp cooking,sleep apnoea,river fishing,solar panels,street food,"
            "budget travel,quantum sensors,dog training,typography,old clocks,pottery glazes,vaccination schedules,"
            "harbour dredging,insurance claims,game physics,plant breeding,railway signals,noise complaints,"
            "map projections,interview questions,water filters,comic drawing,yoga poses,lease renewals,cloud costs"
        ),
        "noun": _words(
            "report,draft,spreadsheet,contract,recipe,letter,class,script,query,invoice,schedule,essay,proposal,form,"
            "presentation,manual,dataset,playlist,blog post,checklist,notebook,complaint,press note,menu,log file,"
            "table,survey,application,budget,lesson plan,prototype,roster,newsletter,backlog,poster,summary,dashboard"
        ),
        "adj": _words(
            "short,long,plain,awkward,formal,cheerful,outdated,half-finished,messy,technical,friendly,detailed,vague,"
            "annual,weekly,internal,public,handwritten,bilingual,urgent,simple,strange,seasonal,local,practical"
        ),
        "person": _words(
            "my sister,our landlord,a colleague,the client,my professor,the new hire,Marta,Kwame,Priya,Jonas,Aiko,"
            "the school,my neighbour,our auditor,Dmitri,Lucía,the supplier,an editor,Hannah,the council,Tunde,Mei,"
            "my daughter,the board,a patient,Omar,our coach,the librarian,Sofia,Henrik"
        ),
        "place": _words(
            "Lisbon,Nairobi,Osaka,Leeds,Toronto,Gdansk,Montevideo,Pune,Tromsø,Manila,Accra,Denver,Valencia,Izmir,"
            "Adelaide,Graz,Hanoi,Bogotá,Cork,Riga,the village,the north coast,the old town,our valley,the suburbs"
        ),
        "do": _words(
            "rewrite,check,explain,shorten,compare,outline,translate,organise,summarise,fix,plan,estimate,describe,"
            "simplify,improve,review,prepare,list,update,sketch"
        ),
        "time": _words(
            "tomorrow,by Friday,next month,before the holidays,this evening,at the end of the quarter,in spring,"
            "within an hour,since last year,on Monday,after lunch,for the weekend,around noon,in early autumn"
        ),
        "opener": _words(
            "Hi,Hello,Hey there,Good morning,Quick question,Ok so,Thanks for earlier,Sorry to bother you"
        ),
        "closer": (
            "Thanks!",
            "Keep it brief please.",
            "No need to be formal.",
            "Ask me if something is unclear.",
            "Any tips are welcome.",
            "I'm in a bit of a hurry.",
            "Please don't repeat the question.",
        ),
    },
    "zh": {
        "topic": _words(
            "面包发酵,个人所得税,潮汐发电,小提琴练习,膝盖手术,养蜂,线性回归,花园灌溉,列车时刻表,租房合同,"
            "围棋布局,黑洞,婚礼致辞,电池回收,马拉松训练,数据库索引,珊瑚礁,房贷利率,民族舞蹈,无人机摄影,"
            "候鸟迁徙,单元测试,学校午餐,木工榫卯,冰川融化,供应链,露营做饭,太阳能板,街头小吃,穷游路线,陶瓷釉料"
        ),
        "noun": _words(
            "报告,草稿,表格,合同,食谱,信件,课程,脚本,发票,日程,作文,方案,演示文稿,手册,数据集,清单,总结,问卷,预算"
        ),
        "adj": _words(
            "简短的,详细的,正式的,有点乱的,过时的,没写完的,技术性的,友好的,年度的,每周的,内部的,双语的,实用的"
        ),
        "person": _words(
            "我姐姐,房东,同事,客户,导师,新员工,小王,李老师,邻居,供应商,编辑,我女儿,教练,图书管理员,张医生"
        ),
        "place": _words("杭州,成都,厦门,兰州,哈尔滨,昆明,老城区,郊区,北方,新加坡,青岛,西安,苏州"),
        "do": _words("改写,检查,解释,缩短,比较,列提纲,翻译,整理,总结,修改,规划,估算,描述,简化,润色"),
        "time": _words("明天,周五之前,下个月,放假前,今晚,季度末,春天,一小时内,周一,午饭后,这个周末"),
        "opener": _words("你好,您好,请问一下,早上好,打扰了,想咨询一下"),
        "closer": ("谢谢！", "请简短一点。", "不用太正式。", "有不清楚的可以问我。", "比较着急。"),
    },
    "ja": {
        "topic": _words(
            "パンの発酵,確定申告,潮力発電,バイオリンの練習,膝の手術,養蜂,線形回帰,庭の水やり,時刻表,賃貸契約,"
            "将棋の序盤,結婚式のスピーチ,電池のリサイクル,マラソン,データベース設計,サンゴ礁,住宅ローン,渡り鳥,"
            "単体テスト,給食,木工,氷河,物流,キャンプ料理,太陽光パネル,屋台料理,陶芸,睡眠,釣り"
        ),
        "noun": _words(
            "報告書,下書き,表,契約書,レシピ,手紙,授業,スクリプト,請求書,予定表,作文,提案書,資料,手順書,一覧,要約,予算案"
        ),
        "adj": _words(
            "短い,詳しい,丁寧な,少し雑な,古い,書きかけの,技術的な,親しみやすい,年次の,社内の,簡単な,実用的な"
        ),
        "person": _words(
            "姉,大家さん,同僚,お客様,先生,新人,田中さん,佐藤さん,隣の人,取引先,編集者,娘,コーチ,司書さん"
        ),
        "place": _words("大阪,札幌,福岡,金沢,仙台,那覇,旧市街,郊外,北海道,京都,広島"),
        "do": _words(
            "書き直して,確認して,説明して,短くして,比べて,整理して,翻訳して,要約して,直して,計画して,見積もって"
        ),
        "time": _words("明日,金曜までに,来月,休み前に,今夜,期末に,春に,一時間以内に,月曜に,昼食後に"),
        "opener": _words("こんにちは,はじめまして,おはようございます,すみません,ちょっと質問です"),
        "closer": ("お願いします。", "簡潔にお願いします。", "急いでいます。", "助かります。"),
    },
    "es": {
        "topic": _words(
            "el pan casero,los impuestos,la energía mareomotriz,el violín,la apicultura,el riego,los contratos de alquiler,"
            "el ajedrez,los agujeros negros,el reciclaje,el maratón,las bases de datos,los arrecifes,la hipoteca,las aves,la carpintería"
        ),
        "noun": _words(
            "informe,borrador,contrato,receta,carta,clase,factura,horario,ensayo,propuesta,manual,resumen,presupuesto,guion"
        ),
        "adj": _words(
            "corto,largo,formal,confuso,anticuado,técnico,amable,detallado,semanal,interno,práctico,urgente"
        ),
        "person": _words(
            "mi hermana,el casero,una colega,el cliente,mi profesor,Lucía,Mateo,la vecina,el proveedor,mi hija,el entrenador"
        ),
        "place": _words("Valencia,Rosario,Cali,Puebla,Bilbao,Montevideo,el pueblo,la costa,Arequipa"),
        "do": _words(
            "reescribir,revisar,explicar,acortar,comparar,traducir,organizar,resumir,corregir,planificar,mejorar"
        ),
        "time": _words(
            "mañana,antes del viernes,el mes que viene,esta noche,en primavera,el lunes,después de comer"
        ),
        "opener": _words("Hola,Buenos días,Una pregunta,Perdona,Buenas"),
        "closer": ("¡Gracias!", "Sé breve, por favor.", "Sin tecnicismos.", "Es urgente."),
    },
    "de": {
        "topic": _words(
            "Sauerteig,die Steuererklärung,Gezeitenkraft,Geigenunterricht,Imkerei,Gartenbewässerung,Mietverträge,Schach,"
            "Schwarze Löcher,Batterierecycling,Marathontraining,Datenbanken,Korallenriffe,Hypothekenzinsen,Vogelzug,Tischlerei"
        ),
        "noun": _words(
            "Bericht,Entwurf,Vertrag,Brief,Stundenplan,Aufsatz,Vorschlag,Fragebogen,Leitfaden,Antrag,Kostenplan"
        ),
        "adj": _words(
            "kurzen,langen,förmlichen,unklaren,veralteten,technischen,freundlichen,ausführlichen,internen,dringenden"
        ),
        "person": _words(
            "meine Schwester,der Vermieter,eine Kollegin,der Kunde,Jonas,Frau Weber,der Nachbar,der Lieferant,meine Tochter"
        ),
        "place": _words("Leipzig,Graz,Kiel,Basel,Freiburg,im Dorf,an der Küste,Linz,Rostock"),
        "do": _words(
            "umschreiben,prüfen,erklären,kürzen,vergleichen,übersetzen,ordnen,zusammenfassen,korrigieren,planen"
        ),
        "time": _words("morgen,bis Freitag,nächsten Monat,heute Abend,im Frühling,am Montag,nach dem Essen"),
        "opener": _words("Hallo,Guten Tag,Kurze Frage,Moin,Entschuldigung"),
        "closer": ("Danke!", "Bitte kurz halten.", "Es eilt etwas.", "Gern mit Beispiel."),
    },
    "pt": {
        "topic": _words(
            "pão caseiro,imposto de renda,energia das marés,aulas de violino,apicultura,irrigação,contratos de aluguel,xadrez,"
            "buracos negros,reciclagem,maratona,bancos de dados,recifes,financiamento,aves migratórias,marcenaria"
        ),
        "noun": _words(
            "relatório,rascunho,contrato,texto,plano de aula,recibo,horário,ensaio,projeto,manual,resumo,orçamento"
        ),
        "adj": _words(
            "curto,longo,formal,confuso,antigo,técnico,simpático,detalhado,semanal,interno,prático"
        ),
        "person": _words(
            "minha irmã,o proprietário,uma colega,o cliente,meu professor,a Ana,o vizinho,o fornecedor,minha filha"
        ),
        "place": _words("Recife,Porto,Curitiba,Belém,Braga,o interior,o litoral,Salvador"),
        "do": _words(
            "reescrever,revisar,explicar,encurtar,comparar,traduzir,organizar,resumir,corrigir,planejar"
        ),
        "time": _words("amanhã,até sexta,no mês que vem,hoje à noite,na primavera,na segunda"),
        "opener": _words("Oi,Olá,Bom dia,Uma dúvida,Desculpa"),
        "closer": ("Obrigado!", "Seja breve, por favor.", "Tenho pressa.", "Pode dar um exemplo."),
    },
}

PATTERNS: dict[str, tuple[str, ...]] = {
    "en": (
        "Can you <do> the <adj> <noun> that <person> sent me about <topic>?",
        "I need to <do> a <noun> on <topic> <time>, and I only have <num> notes.",
        "What is the difference between <topic> and <topic2> for someone living in <place>?",
        "How would you <do> a <adj> <noun> for <person>?",
        "<Person> says that <topic> in <place> went up by <num> percent, is that plausible?",
        "We have <num> people coming to <place> <time> and I want to talk about <topic>.",
        "Please <do> this <noun>: it covers <topic>, <topic2> and about <num> open points.",
        "My <noun> about <topic> got <num> comments from <person>.",
        "Give me <small> ideas for a <adj> <noun> on <topic>.",
        "Why does everyone in <place> care so much about <topic>?",
        "Is there a <adj> way to <do> <topic> without hiring <person>?",
        "The <noun> lists <num> items, <num2> of them concern <topic>.",
        "I tried to <do> it <time> but <person> did not like the part on <topic>.",
        "If a <noun> costs <num> in <place> and <num2> online, which one is better for <topic>?",
        "Explain <topic> to <person> in <small> sentences.",
        "A store in <place> sold <num> units <time> and returned <num2>, how many are left?",
        "Write the opening of a story where <person> discovers <topic> in <place>.",
        "The function that should <do> the <noun> returns <num> rows where I expect <num2>.",
        "Suggest a title for a <adj> <noun> about <topic> and <topic2>.",
        "Which books on <topic> would you give to <person>?",
        "I moved to <place> <time> and still know nothing about <topic>.",
        "Here is the first line of the <noun>: '<topic2>, as seen from <place>'.",
        "def load_<word>(path, limit=<num>):\n    rows = read(path)[:<num2>]\n    return [r for r in rows if r.<word2>]",
        "SELECT <word>, count(*) FROM <word2> WHERE day > <num> GROUP BY 1;",
        "Step <small>: <do> the <noun>. Step <small2>: send it to <person> <time>.",
    ),
    "zh": (
        "能不能帮我<do><person>发来的关于<topic>的<adj><noun>？",
        "我<time>要写一份<topic>的<noun>，手头只有<num>条笔记。",
        "对住在<place>的人来说，<topic>和<topic2>有什么区别？",
        "<person>说<place>的<topic>涨了百分之<num>，可信吗？",
        "请<do>这份<noun>，里面讲到<topic>、<topic2>，还有<num>个问题。",
        "给我<small>个关于<topic>的<adj><noun>的点子。",
        "<place>有<num>个人报名，<time>想聊聊<topic>。",
        "用<small>句话向<person>解释<topic>。",
        "商店<time>卖出<num>件，退回<num2>件，还剩多少？",
        "写一个<person>在<place>遇到<topic>的故事开头。",
    ),
    "ja": (
        "<person>から届いた<topic>についての<adj><noun>を<do>もらえますか？",
        "<time><topic>の<noun>を出すのですが、メモが<num>件しかありません。",
        "<place>に住む人にとって<topic>と<topic2>の違いは何ですか？",
        "<person>によると<place>の<topic>は<num>パーセント増えたそうです。",
        "<topic>に関する<adj><noun>の案を<small>個ください。",
        "この<noun>には<topic>と<topic2>、それに<num>個の質問があります。",
        "<small>文で<person>に<topic>を説明してください。",
        "店は<time><num>個売り、<num2>個返品されました。残りはいくつですか？",
    ),
    "es": (
        "¿Puedes <do> el <noun> <adj> que me mandó <person> sobre <topic>?",
        "Tengo que <do> un <noun> sobre <topic> <time> y solo tengo <num> notas.",
        "¿Qué diferencia hay entre <topic> y <topic2> para alguien de <place>?",
        "<Person> dice que en <place> subió un <num> por ciento, ¿es creíble?",
        "Dame <small> ideas para un <noun> <adj> sobre <topic>.",
        "En <place> vendieron <num> unidades y devolvieron <num2>, ¿cuántas quedan?",
        "Explícale <topic> a <person> en <small> frases.",
    ),
    "de": (
        "Kannst du den <adj> <noun> über <topic> <do>, den <person> geschickt hat?",
        "Ich muss <time> einen <noun> zu <topic> abgeben und habe nur <num> Notizen.",
        "Worin unterscheiden sich <topic> und <topic2>, wenn man in <place> wohnt?",
        "<Person> sagt, in <place> seien es <num> Prozent mehr, stimmt das?",
        "Gib mir <small> Ideen für einen <adj> <noun> über <topic>.",
        "In <place> wurden <num> Stück verkauft und <num2> zurückgegeben, wie viele bleiben?",
    ),
    "pt": (
        "Você pode <do> o <noun> <adj> sobre <topic> que <person> mandou?",
        "Preciso <do> um <noun> sobre <topic> <time> e só tenho <num> anotações.",
        "Qual a diferença entre <topic> e <topic2> para quem mora em <place>?",
        "<Person> diz que em <place> subiu <num> por cento, faz sentido?",
        "Me dê <small> ideias para um <noun> <adj> sobre <topic>.",
        "Em <place> venderam <num> unidades e devolveram <num2>, quantas sobram?",
    ),
}

FOLLOW_UPS = {
    "en": (
        "continue",
        "thanks",
        "Yes please",
        "go on",
        "Can you make it shorter?",
        "why?",
        "Try again",
        "ok",
        "more",
    ),
    "zh": ("继续", "谢谢", "好的", "再短一点", "为什么？", "重写一遍"),
    "ja": ("続けて", "ありがとう", "はい", "もっと短く", "なぜですか？"),
    "es": ("sigue", "gracias", "sí, por favor", "más corto", "¿por qué?"),
    "de": ("weiter", "danke", "ja bitte", "kürzer bitte", "warum?"),
    "pt": ("continue", "obrigado", "sim, por favor", "mais curto", "por quê?"),
}

ROLES = (
    "You are [a careful|an experienced|a patient|a senior] <domain> [assistant|expert|editor|specialist].",
    "Act as [a|the] [seasoned|thorough|friendly] <domain> [advisor|reviewer|consultant].",
    "As [a member of|a helper in] the <domain> [team|desk|group], [read|look at|work on] the [text|material|message] below.",
    "[Today you work|Imagine you work] for a <domain> [office|service|studio].",
)
DOMAINS = _words(
    "legal,logistics,education,cooking,software,travel,medical information,finance,support,publishing,energy,retail,"
    "gardening,history,science,media,housing,sports,music,engineering"
)
TASKS: dict[str, tuple[str, ...]] = {
    "reasoning": (
        "[Work through|Reason through|Go through] the [item|problem|question] on <a> [from the angle of|with regard to] <b> [step by step|one step at a time].",
        "[Write out|Set down|Lay out] the [full|complete|whole] [reasoning|chain of thought|thinking] [behind|that leads to] the [answer|result] for <a> and <b>.",
    ),
    "grading": (
        "[Grade|Score|Rate] the [answer|response|text] on <a> [against|by] the criterion <b> [from 1 to 10|on a scale of ten].",
        "[Judge|Assess] how well the [reply|passage] treats <a> [in terms of|with a view to] <b> and [give|assign] a [mark|score].",
    ),
    "cleaning": (
        "[Clean|Tidy|Normalise] the [trace|record|notes] about <a> so that <b> [stays|remains] [intact|complete].",
        "[Rewrite|Restate] the [steps|passage] on <a> without [noise|errors], [keeping|preserving] <b>.",
    ),
    "synthesis": (
        "[Invent|Write|Create] a [new|fresh] [exercise|task|problem] about <a> [combined with|involving] <b>, [inspired by|based on] the text below.",
        "[Produce|Come up with] [varied|diverse] [questions|instructions] on <a> [at the level of|in the style of] <b>.",
    ),
    "agentic": (
        "[Plan|List] the tool calls [needed|required] to [solve|finish] the task on <a> [given|under] <b>.",
        "[Show|Write] each [action and observation|call and result] while [handling|solving] <a> [with|using] <b>.",
    ),
    "extraction": (
        "[Extract|Pull out|Collect] the [key fields|facts|figures] about <a> [and file them|to be filed] under <b>.",
        "[Find|Mark] every [mention|statement] of <a> that [touches|concerns] <b>.",
    ),
    "support": (
        "[Answer|Reply to] the [customer|reader] who asks about <a> [following|according to] the policy on <b>.",
        "[Route|Sort|Classify] the message on <a> into the [queue|category] <b> or say that it does not fit.",
    ),
    "summary": (
        "[Summarise|Condense|Boil down] the text on <a> for [readers|people] interested in <b>.",
        "[Turn|Make] the notes about <a> into a [short|brief] [overview|digest] with a focus on <b>.",
    ),
    "translation": (
        "[Translate|Render] the passage on <a> [keeping|in] the tone of <b>.",
        "[Localise|Adapt] the text about <a> for an audience that knows <b>.",
    ),
    "review": (
        "[Review|Check|Go over] the [code|draft|plan] for <a> [and comment on|with an eye to] <b>.",
        "[Point out|List] [problems|weak spots] in the part on <a> [with respect to|regarding] <b>.",
    ),
}
HARVEST_TASKS = ("reasoning", "grading", "cleaning", "synthesis", "agentic")
HONEST_TASKS = (
    "extraction", "support", "summary", "translation", "review", "reasoning", "grading", "synthesis", "agentic", "cleaning",
)  # fmt: skip
RULES = (
    "[Keep|Stay] [within|under] <num> words.",
    "[Do not|Never] [repeat|restate] the [question|input].",
    "[Use|Write in] [plain|simple|clear] language.",
    "[Explain|Justify] [each|every] [step|decision] [briefly|in one line].",
    "[If|Where] [something|a detail] is [missing|unclear], [say so|state it].",
    "[Quote|Cite] the [passage|line] you [rely on|use].",
    "[Give|List] at most <small> [points|items].",
    "[Avoid|Leave out] [filler|small talk|apologies].",
    "[Think|Consider] [carefully|twice] before you [answer|reply].",
    "[Mark|Flag] [doubtful|uncertain] [parts|claims] with a question mark.",
    "[Put|Write] numbers in [digits|figures].",
    "[Check|Verify] the [result|outcome] [at the end|once more].",
    "[Respect|Keep] the [order|structure] of the [source|original].",
    "[Assume|Suppose] the reader knows [nothing|little] about it.",
)
OUTPUTS = (
    "[Return|Give back] [JSON|a JSON object] with the [keys|fields] '<word>' and '<word2>'.",
    "[Finish|End] with a line that [starts with|begins with] '<Word>:'.",
    "[Answer|Reply] as a [numbered|bulleted] list.",
    "[Put|Place] the final [answer|result] between <<word>> tags.",
    "[Write|Return] [one paragraph|two paragraphs|a short table].",
    "[Output|Return] only the [text|result], [nothing else|no comments].",
)
LABELS = ("Input", "Text", "Item", "Material", "Message", "Source", "Case", "Document", "Notes", "Question")
