"""The shell: observe, plan, apply, report.  Joins the decisions and the world."""
