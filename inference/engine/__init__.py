"""Jobs in front of a model: a bounded queue, priorities, fair turns, micro-batches, deadlines and a breaker.

    backend   what an engine runs, and how much of it at once
    engine    takes requests, batches them, and runs the model on them
    jobs      one request inside the engine: its items, its deadline, its future
    queues    jobs that wait, by priority and in turns between those who asked
    batching  which items go through the model together
    breaker   stops asking a model that is slow or sick
    cost      how long work will take, learnt from how long it took
    backlog   how much of its callers' work may stand before an engine at once
    instruments  the metrics of one engine, under its own names
    failures  what a failure is called in logs
    runtime   the one engine of a model in a process: loaded in the background, never across a fork

One engine runs one model. The cross-encoder (`rerank`) and the embedding model (`memory.index`) have one each.
Knows no setting, no text and no metric by name.
"""
