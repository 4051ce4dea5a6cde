"""What follows from invoices that are not paid: reminders, then no new sessions, then nothing is signed; until paid."""
