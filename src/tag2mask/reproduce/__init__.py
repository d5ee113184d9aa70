"""The paper's tables and figures, computed here: each an item that says which runs it needs and what it reads off them.

scales -> cells (runs, shared by the items) -> items -> JSON, Markdown, pictures -> one page
"""
