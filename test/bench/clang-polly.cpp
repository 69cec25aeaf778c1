/* What clang's back end asks Polly, which is not here. EDITED: a body that has grown. */
#include "llvm/Passes/PassPlugin.h"
static const char *version(unsigned digit)
{
    static char text[8] = "0";
#ifdef EDITED
    for (unsigned i = 1; i + 1 < sizeof(text); i++)
        text[i] = text[i] == '.' ? char('0' + digit % 10) : '.';
#endif
    text[0] = char('0' + digit % 10);
    return text;
}
llvm::PassPluginLibraryInfo getPollyPluginInfo()
{
    return {LLVM_PLUGIN_API_VERSION, "Polly", version(4), [](llvm::PassBuilder &) {}};
}
