"""The admin's first page: whether all is well, and how it was in the last weeks.

    counted     this process's counters that the page tells of, as a flat list of numbers
    levels      what the database knows, sampled: tenants, chunks, calls that wait
    recorder    adds both to the row of the present hour, from every serving process
    hours       reads the hours back: sums, series, percentiles
    words       times and numbers as a person reads them
    server_gauges  queues and breakers of this server's processes
    facts       all that one look reads
    plots       a series of numbers as SVG
    attention   what is wrong or due, worst first
    sections    the page's groups of numbers
    page        the callback that puts them into the page

What a look costs does not depend on how many tenants or chunks there are.
"""
