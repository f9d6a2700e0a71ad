"""The web application of ``vdsr serve``: one page, one endpoint, results in memory.

    browser ──POST upload──► app ──► jobs: bounded queue ──► the one thread that owns the models
            ◄──lines of JSON── progress, then the result ◄──┘
            ──GET results/ID/s0.png──► kept files, the oldest dropped first

    jobs.py     the queue, its thread, and the finished files: no web in it
    app.py      routes, limits, security headers
    server.py   the socket and uvicorn
    page.html, page.css, page.js    around the viewer that reports have too (services/viewer.*)

Needs the extra ``serve``; nothing here is imported before ``vdsr serve`` has found it.
"""
