"""What every measuring command shares: models, texts, questions, processes, progress, records, files, tables, pages.

Nothing here imports evaluation, harness, evidence, report or bench. Files without torch at their top stay without it,
so that a command line can check its arguments before torch is imported.
"""
