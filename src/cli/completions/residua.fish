
# What stands before the last of some characters, and what is completed behind it.
function __residua_split -a token characters
    set -l part (string replace -r "^.*[$characters]" '' -- $token)
    string sub -l (math (string length -- "$token") - (string length -- "$part")) -- "$token"
    echo -- $part
end

function __residua_token
    string replace -r -- '^--[^=]*=' '' (commandline -ct) | string trim -l -c "\"'"
end

function __residua_offer -a before
    for word in $argv[2..-1]
        echo -- $before$word
    end
end

function __residua_files -a before part
    for path in (eval "printf '%s\n' "(string escape -n -- $part)"*" 2>/dev/null)
        test -e $path; or continue
        test -d $path; and set path $path/
        echo -- $before$path
    end
end

function __residua_words
    set -l split (__residua_split (__residua_token) ',=')
    __residua_offer "$split[1]" $argv
end

function __residua_path
    set -l split (__residua_split (__residua_token) '=')
    __residua_files "$split[1]" "$split[2]"
end

function __residua_data
    set -l token (__residua_token)
    if string match -q '*\?*' -- $token
        set -l split (__residua_split $token '?,&')
        __residua_offer "$split[1]" split=train split=test limit= sample= seed= size= labels=
    else if string match -rq '(^|=)demo:' -- $token
        set -l split (__residua_split $token ':')
        __residua_offer "$split[1]" fashion-mnist unseen digits
    else if string match -q '*:*' -- $token
        set -l split (__residua_split $token ':,=')
        __residua_files "$split[1]" "$split[2]"
    else
        set -l split (__residua_split $token '=')
        __residua_offer "$split[1]" @SCHEMES@
    end
end

