"""One module a library: its application as its documentation writes it, and how it is published to and worked on."""
