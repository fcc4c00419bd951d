"""Problems of documents, and the page of every code."""
