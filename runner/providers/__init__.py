"""Who serves. One file per provider; nothing else imports an SDK or a model library."""
