"""The pages: report, comparison, model card and data sheet, with their figures and images."""
