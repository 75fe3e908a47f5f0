"""What calls from Python take and give beside what the command line does: settings, results."""
