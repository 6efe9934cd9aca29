"""One module a library: its application, as its documentation writes it, and its worker."""
