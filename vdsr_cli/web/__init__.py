"""The web application of ``vdsr serve``: one page, one endpoint, results in memory.

    browser ──POST picture──► endpoint ──► queue ──► the one thread that owns the models
       ▲ ▲──────lines of JSON: progress, then the result ──┘            │
       └──GET results/ID/s0.png── kept files, oldest dropped first ◄────┘

    jobs.py         the queue, its thread, and the kept files: no web in it
    endpoint.py     an upload: received, refused or drawn, its progress told
    app.py          routes, security headers, whom to answer, the log
    connections.py  who is too slow, or one too many
    server.py       the socket and uvicorn
    page.*          the page around the viewer that reports have too (figures/viewer.*)

Needs the extra ``serve``; nothing here is imported before ``vdsr serve`` has found it.
"""
