"""What a client gives, as documents of checked chunks.

    document     `Document` and `Chunk`, and the rules that a set of documents keeps
    splitting    texts into chunks, within what one request may make and take
    strict_json  JSON as RFC 8259 means it, from the bytes of a body or of a line
    fields       fields that take exactly what they say
    shape        the JSON of one document or of many, and the documents it stands for
    lines        a document on a line of JSON
    exported     stored chunks on lines of JSON, written and read
    merge_patch  JSON Merge Patch (RFC 7396)
    patches      changes to what is stored, and the JSON that clients send for them

The API and an import read documents here, `memory.indexing` stores them. Imports `index` and `memory.exceptions`.
"""
