"""How the small cross-encoder comes about: from judged collections to a folder that `rerank` can serve.

    collections  a collection's passages and questions, by part: train, dev, held out
    rewriting    plain passages as windows of sentences and as turns of a conversation
    views        its passages as memories are: windows, turns of a conversation, chunks of documents
    mining       the candidates that the product's hybrid finds in a view
    recipe       what is mined of which collection
    held_out     whole collections that are only measured
    quality      nDCG of pools, and the weight of the model's score that is best on dev
    latency      beside the specified model's shape
    report, card the tables, and the model card around them
    run          all of it in order, with everything kept

The model itself and its training are in `rerank.training`, which knows neither collections nor retrieval.
"""
