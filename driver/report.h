/* report.h - messages as text for people or as JSON for tools. */
#ifndef KLD_DRIVER_REPORT_H
#define KLD_DRIVER_REPORT_H

#include <kld/kld.h>
#include <stdio.h>

struct kld_report_style {
    bool json;
    bool colour;
};

/* Writes a message, in one piece as far as it fits a buffer, so that messages of linkers that run
 * side by side do not mix. Errors and warnings go to err; notes are what was asked for: to out. */
void kld_report_message(const struct kld_report_style *style, FILE *out, FILE *err,
                        const kld_message *message);

#endif
