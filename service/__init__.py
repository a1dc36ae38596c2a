"""The service: tags and search over HTTP, and a page to try it on."""
