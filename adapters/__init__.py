"""One folder a backend: each may import ports, domain and its own client library, nothing else of ours."""
